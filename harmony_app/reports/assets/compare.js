// Before, after and target over each other: a line to swipe, or one after the other.
// The pictures stand side by side where this does not run.
(function () {
  'use strict';
  var PERIOD = 800; // milliseconds: far below three flashes a second
  var calm = window.matchMedia('(prefers-reduced-motion: reduce)');

  function make(tag, attributes, words) {
    var element = document.createElement(tag);
    Object.keys(attributes).forEach(function (name) {
      element.setAttribute(name, attributes[name]);
    });
    if (words) element.textContent = words;
    return element;
  }

  function setUp(box, number) {
    var stage = box.querySelector('.stage');
    var figures = Array.prototype.slice.call(stage.querySelectorAll('figure'));
    var names = figures.map(function (figure) { return figure.dataset.stage; });
    var state = { view: 'side', first: 0, second: 1, split: 50, above: true, timer: null };

    var tools = make('div', { 'class': 'tools' });
    var views = make('fieldset', {});
    views.appendChild(make('legend', {}, 'How to compare'));
    [['swipe', 'Swipe'], ['flicker', 'Flicker'], ['side', 'Side by side']].forEach(function (view) {
      var label = make('label', {});
      var input = make('input', { type: 'radio', name: 'view' + number, value: view[0] });
      input.addEventListener('change', function () { show(view[0]); });
      label.appendChild(input);
      label.appendChild(document.createTextNode(' ' + view[1]));
      views.appendChild(label);
    });
    tools.appendChild(views);

    var pairs = make('select', { 'aria-label': 'Pictures to compare' });
    names.forEach(function (one, i) {
      names.forEach(function (other, j) {
        if (i < j) pairs.appendChild(make('option', { value: i + ',' + j }, one + ' and ' + other));
      });
    });
    pairs.addEventListener('change', function () {
      var chosen = pairs.value.split(',');
      state.first = Number(chosen[0]);
      state.second = Number(chosen[1]);
      draw();
    });
    tools.appendChild(pairs);
    var pause = make('button', { type: 'button' }, 'Pause');
    pause.addEventListener('click', function () {
      if (state.timer) stop(); else start();
      draw();
    });
    tools.appendChild(pause);
    box.insertBefore(tools, stage);

    var line = make('div', { 'class': 'split' });
    stage.appendChild(line);
    var slider = make('input', {
      type: 'range', min: 0, max: 100, step: 1, value: 50, 'aria-label': 'Where the pictures meet'
    });
    slider.addEventListener('input', function () { split(Number(slider.value)); });
    var shown = make('p', { 'class': 'shown' });
    stage.insertAdjacentElement('afterend', slider);
    slider.insertAdjacentElement('afterend', shown);

    function split(percent) {
      state.split = Math.min(100, Math.max(0, percent));
      slider.value = Math.round(state.split);
      draw();
    }
    function toggle() { state.above = !state.above; draw(); }
    function start() { stop(); state.timer = window.setInterval(toggle, PERIOD); }
    function stop() { window.clearInterval(state.timer); state.timer = null; }

    function draw() {
      var stacked = state.view !== 'side', swipe = state.view === 'swipe';
      box.classList.toggle('stacked', stacked);
      stage.dataset.view = state.view;
      figures.forEach(function (figure, index) {
        figure.classList.toggle('below', stacked && index === state.first);
        figure.classList.toggle('above', stacked && index === state.second);
      });
      stage.style.setProperty('--split', (swipe ? state.split : state.above ? 0 : 100) + '%');
      line.hidden = slider.hidden = !swipe;
      pause.hidden = state.view !== 'flicker';
      pairs.hidden = !stacked;
      pause.textContent = state.timer ? 'Pause' : 'Play';
      shown.hidden = !stacked;
      shown.textContent = swipe
        ? 'left of the line: ' + names[state.first] + ', right of it: ' + names[state.second]
        : names[state.above ? state.second : state.first];
      if (stacked) stage.tabIndex = 0; else stage.removeAttribute('tabindex');
    }

    function show(view) {
      state.view = view;
      stop();
      if (view === 'flicker' && !calm.matches) start();
      views.querySelector('[value="' + view + '"]').checked = true;
      draw();
    }

    function follow(event) {
      var frame = stage.getBoundingClientRect();
      split(100 * (event.clientX - frame.left) / frame.width);
    }
    stage.addEventListener('pointerdown', function (event) {
      if (state.view === 'swipe') {
        stage.setPointerCapture(event.pointerId);
        follow(event);
      } else if (state.view === 'flicker') {
        stop();
        toggle();
      }
    });
    stage.addEventListener('pointermove', function (event) {
      if (state.view === 'swipe' && (event.buttons || event.pointerType === 'touch')) follow(event);
    });
    stage.addEventListener('dragstart', function (event) { event.preventDefault(); });
    stage.addEventListener('keydown', function (event) {
      var steps = { ArrowLeft: -5, ArrowDown: -5, ArrowRight: 5, ArrowUp: 5, Home: -100, End: 100 };
      if (state.view === 'swipe' && event.key in steps) split(state.split + steps[event.key]);
      else if (state.view === 'flicker' && event.key === ' ') { stop(); toggle(); }
      else return;
      event.preventDefault();
    });
    show('swipe');
  }

  Array.prototype.forEach.call(document.querySelectorAll('.compare'), setUp);
}());

// The volumes of a page in three dimensions, drawn by NiiVue once it is asked for.
(function () {
  'use strict';
  var box = document.querySelector('.viewer');
  if (!box) return;
  var open = box.querySelector('.open'), told = box.querySelector('.told');
  var tools = box.querySelector('.tools'), canvas = box.querySelector('canvas');
  var screen = box.querySelector('.screen');
  var scan = box.querySelector('.scan'), stage = box.querySelector('.stages');
  var view = box.querySelector('.view');
  var shown = null, viewer = null;

  function text(index, name) {
    return document.getElementById('volume-' + index + '-' + name).textContent.trim();
  }

  function load(index) {
    var names = Array.prototype.map.call(stage.options, function (option) { return option.value; });
    return Promise.all(names.map(function (name) {
      return niivue.NVImage.loadFromBase64({
        base64: text(index, name), name: name + '.nii.gz', cal_min: 0, cal_max: 255
      });
    })).then(function (volumes) {
      while (viewer.volumes.length) viewer.removeVolume(viewer.volumes[0]);
      volumes.forEach(function (volume) { viewer.addVolume(volume); });
      shown = index;
      choose();
    });
  }

  function choose() {
    viewer.volumes.forEach(function (volume, place) {
      viewer.setOpacity(place, place === stage.selectedIndex ? 1 : 0);
    });
    viewer.setSliceType(viewer['sliceType' + view.value]);
    told.textContent = scan.options[scan.selectedIndex].text + ', ' + stage.value +
      '. Drag to move through the head; the wheel changes the slice.';
  }

  function fail(reason) {
    told.textContent = 'The 3D view cannot be shown: ' + reason;
    tools.hidden = screen.hidden = true;
  }

  open.addEventListener('click', function () {
    if (!document.createElement('canvas').getContext('webgl2')) {
      fail('this browser gives no WebGL 2.');
      return;
    }
    open.hidden = true;
    tools.hidden = screen.hidden = false;
    viewer = new niivue.Niivue({
      backColor: [0, 0, 0, 1], show3Dcrosshair: true, crosshairWidth: 0.4, logLevel: 'error'
    });
    viewer.attachToCanvas(canvas).then(function () { return load(0); }).catch(function (error) {
      fail(String(error && error.message || error));
    });
  });
  scan.addEventListener('change', function () { load(scan.selectedIndex); });
  stage.addEventListener('change', function () { if (shown !== null) choose(); });
  view.addEventListener('change', function () { if (shown !== null) choose(); });
}());

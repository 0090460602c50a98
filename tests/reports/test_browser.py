"""Pages in a real browser: controls work, the console is silent, nothing is asked of the network."""

import json
import shutil
import time

import pytest

from harmony_app.workflows.participant_report import write_report

FLAGS = (
    '--headless=new',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    # WebGL without a GPU, for the view in three dimensions.
    '--enable-unsafe-swiftshader',
)

SCAN = 'sub-01_ses-a_T1w'


@pytest.fixture(scope='module')
def page(results_tree, tmp_path_factory):
    """Page of a participant with everything in it."""
    root = tmp_path_factory.mktemp('browsed') / 'out'
    shutil.copytree(results_tree, root)
    return write_report(root, '01', view_3d=True)[0]


@pytest.fixture(scope='module')
def chromium(tmp_path_factory):
    """Headless Chromium, driven by its own driver: nothing is downloaded."""
    webdriver = pytest.importorskip('selenium.webdriver', reason='selenium is not installed')
    programs = [shutil.which(name) for name in ('chromium', 'chromedriver')]
    if None in programs:
        pytest.skip('no chromium and chromedriver: apt-get install chromium chromium-driver')
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in (*FLAGS, f'--user-data-dir={tmp_path_factory.mktemp("chromium")}'):
        options.add_argument(flag)
    options.set_capability('goog:loggingPrefs', {'performance': 'ALL', 'browser': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    driver.set_page_load_timeout(120)
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium, page):
    """The page, opened anew at the width of a desk; its logs are judged at the end."""
    chromium.get('about:blank')
    for kind in ('browser', 'performance'):
        chromium.get_log(kind)
    resize(chromium, 1280)
    chromium.get(page.as_uri())
    yield chromium
    assert complaints(chromium) == []
    assert requests(chromium) - {page.as_uri()} == set()


def resize(driver, width):
    metrics = {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': width < 600}
    driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)


def complaints(driver):
    return [entry for entry in driver.get_log('browser') if entry['level'] == 'SEVERE']


def requests(driver):
    """Addresses that were asked for; pictures inside the page are none."""
    events = [json.loads(entry['message'])['message'] for entry in driver.get_log('performance')]
    asked = [
        e['params']['request']['url'] for e in events if e['method'] == 'Network.requestWillBeSent'
    ]
    return {url for url in asked if not url.startswith(('data:', 'blob:'))}


def part_of(driver, selector):
    """Element of the first comparison."""
    return driver.find_element('css selector', f'.compare {selector}')


def split(driver):
    """Where the picture above is cut, percent from the left."""
    clip = part_of(driver, 'figure.above').value_of_css_property('clip-path')
    return float(clip.partition('inset(')[2].split()[-1].rstrip(')%px') or 0)


def shown(driver):
    return part_of(driver, '.shown').text


def choose(driver, view):
    part_of(driver, f'input[value="{view}"]').click()


def test_the_swipe_moves_by_slider_keyboard_and_pointer(browser):
    from selenium.webdriver import ActionChains, Keys

    assert part_of(browser, 'figure.below').get_attribute('data-stage') == 'before'
    assert part_of(browser, 'figure.above').get_attribute('data-stage') == 'after'
    assert split(browser) == 50
    part_of(browser, 'input[type=range]').send_keys(Keys.ARROW_LEFT)
    assert split(browser) == 49
    part_of(browser, '.stage').send_keys(Keys.ARROW_RIGHT)
    assert split(browser) == 54
    part_of(browser, '.stage').send_keys(Keys.HOME)
    assert split(browser) == 0
    stage = part_of(browser, '.stage')
    browser.execute_script('arguments[0].scrollIntoView({block: "center"})', stage)
    quarter = -round(stage.size['width'] / 4)
    ActionChains(browser).move_to_element_with_offset(stage, quarter, 0).click().perform()
    assert split(browser) == pytest.approx(25, abs=1)
    assert shown(browser) == 'left of the line: before, right of it: after'


def test_a_finger_moves_the_swipe(browser):
    stage = part_of(browser, '.stage')
    browser.execute_script('arguments[0].scrollIntoView({block: "center"})', stage)
    frame = browser.execute_script(
        'var r = arguments[0].getBoundingClientRect(); return [r.left, r.top, r.width, r.height]',
        stage,
    )
    for kind, share in (('touchStart', 0.5), ('touchMove', 0.8)):
        point = {'x': frame[0] + share * frame[2], 'y': frame[1] + frame[3] / 2}
        browser.execute_cdp_cmd('Input.dispatchTouchEvent', {'type': kind, 'touchPoints': [point]})
    browser.execute_cdp_cmd('Input.dispatchTouchEvent', {'type': 'touchEnd', 'touchPoints': []})
    assert split(browser) == pytest.approx(80, abs=2)


def test_the_flicker_shows_one_after_the_other(browser):
    from selenium.webdriver import Keys

    choose(browser, 'flicker')
    seen = set()
    end = time.monotonic() + 20
    while len(seen) < 2 and time.monotonic() < end:
        # In one step, so that nothing changes between the words and the picture.
        words, clip = browser.execute_script(
            """
            var box = document.querySelector('.compare');
            return [box.querySelector('.shown').textContent,
                    getComputedStyle(box.querySelector('figure.above')).clipPath];
            """
        )
        seen.add((words, '100%' in clip))
        time.sleep(0.1)
    assert seen == {('after', False), ('before', True)}
    assert not part_of(browser, 'input[type=range]').is_displayed()
    pause = part_of(browser, 'button')
    pause.click()
    assert pause.text == 'Play'
    still = shown(browser)
    time.sleep(1.2)
    assert shown(browser) == still
    part_of(browser, '.stage').send_keys(Keys.SPACE)
    assert shown(browser) != still


def test_any_two_pictures_are_compared(browser):
    from selenium.webdriver.support.ui import Select

    Select(part_of(browser, 'select')).select_by_visible_text('before and target')
    assert shown(browser) == 'left of the line: before, right of it: target'
    choose(browser, 'side')
    figures = part_of(browser, '.stage').find_elements('css selector', 'figure')
    assert [figure.is_displayed() for figure in figures] == [True] * 3
    assert not part_of(browser, 'input[type=range]').is_displayed()


def test_outlines_are_ticked_away(browser):
    lines = browser.find_element('css selector', '.outlines')
    assert lines.value_of_css_property('display') != 'none'
    box = browser.find_element('css selector', '.hide-outlines')
    browser.execute_script('arguments[0].scrollIntoView({block: "center"})', box)
    box.click()
    assert lines.value_of_css_property('display') == 'none'


@pytest.mark.parametrize('width', [1280, 390])
def test_nothing_is_wider_than_the_screen(browser, width):
    resize(browser, width)
    assert browser.execute_script('return document.documentElement.scrollWidth') <= width
    small = browser.execute_script(
        """
        return Array.from(document.querySelectorAll('p, li, td, th, label, button, text, figcaption'))
          .filter(function (e) { return e.getClientRects().length && e.textContent.trim(); })
          .map(function (e) {
            var size = parseFloat(getComputedStyle(e).fontSize);
            var svg = e.ownerSVGElement;
            return svg ? size * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : size;
          }).filter(function (size) { return size < 10; }).length
        """
    )
    assert small == 0


def test_the_volumes_are_drawn(browser):
    button = browser.find_element('css selector', '.viewer .open')
    browser.execute_script('arguments[0].scrollIntoView({block: "center"})', button)
    button.click()
    told = browser.find_element('css selector', '.viewer .told')
    end = time.monotonic() + 60
    while not told.text and time.monotonic() < end:
        time.sleep(0.2)
    assert told.text.startswith(f'{SCAN}, before')


def test_the_page_is_whole_without_a_script(chromium, page):
    chromium.execute_cdp_cmd('Emulation.setScriptExecutionDisabled', {'value': True})
    try:
        chromium.get(page.as_uri())
        assert chromium.find_elements('css selector', '.tools fieldset') == []
        figures = chromium.find_elements('css selector', '.compare figure')
        assert len(figures) == 9
        assert all(figure.is_displayed() for figure in figures)
    finally:
        chromium.execute_cdp_cmd('Emulation.setScriptExecutionDisabled', {'value': False})


def test_what_leaves_a_page_would_be_seen(chromium, tmp_path):
    """The judgement of the other tests, on a page that does ask for something."""
    page = tmp_path / 'leaking.html'
    page.write_text('<!DOCTYPE html><title>x</title><img src="http://127.0.0.1:9/a.png">')
    chromium.get('about:blank')
    chromium.get_log('performance')
    chromium.get(page.as_uri())
    assert 'http://127.0.0.1:9/a.png' in requests(chromium)
    assert complaints(chromium)

"""The page in a real browser: it draws, recolours, hides, answers a click, and asks for no file."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from oneformer3d.files.ply import read_ply
from oneformer3d.viewer.live import LiveScene
from oneformer3d.viewer.page import write_page
from oneformer3d.viewer.scene import GroundTruth, view_scene
from tests.viewer.scenes import HARMFUL, PALETTE, small_asked, small_segmentation
from tests.viewer.test_live import editable, live  # noqa: F401  (a fixture)
from tests.viewer.test_server import server, serving  # noqa: F401  (a fixture)

pytestmark = pytest.mark.browser
SIZE = {'width': 1000, 'height': 700}
FLAGS = ['--no-sandbox', '--use-angle=swiftshader', '--enable-unsafe-swiftshader']


@pytest.fixture(scope='module')
def browser():
    playwright = pytest.importorskip('playwright.sync_api', reason='needs playwright')
    path = shutil.which('chromium') or shutil.which('google-chrome')
    if path is None:
        pytest.skip('needs Chromium')
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope='module')
def opened(browser, tmp_path_factory):
    """The page of the small scene, and every request and fault of it."""
    path = tmp_path_factory.mktemp('page') / 'scene.html'
    result = small_segmentation()
    write_page(path, view_scene('room', result.upright, result.rgb, result, small_asked()))
    tab = browser.new_page(viewport=SIZE)
    requests, faults = [], []
    tab.on('request', lambda request: requests.append(request.url))
    tab.on('pageerror', lambda error: faults.append(str(error)))
    tab.on('console', lambda message: faults.append(message.text))
    tab.goto(path.as_uri())
    tab.wait_for_selector('body[data-ready]')
    tab.evaluate("for (const id of ['boxes', 'names']) document.getElementById(id).click()")
    return tab, requests, faults


def wait_until(tab, condition: str) -> None:
    """Until an expression of the page is true; the page's own policy forbids Playwright's way."""
    for _ in range(200):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(50)
    pytest.fail(f'never true: {condition}')


def picture(tab) -> np.ndarray:
    """Colours (M, 3) of what is drawn in the canvas."""
    # one frame to draw, and one to be sure that it is shown
    tab.evaluate('new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))')
    with Image.open(io.BytesIO(tab.locator('#canvas').screenshot())) as image:
        pixels = np.asarray(image.convert('RGB')).reshape(-1, 3).astype(int)
    ground = pixels[0]
    return pixels[np.abs(pixels - ground).sum(1) > 12]


def share_of_hue(pixels: np.ndarray, color: np.ndarray) -> float:
    """Share of the pixels that have a colour, lighter or darker."""
    directions = pixels / np.linalg.norm(pixels, axis=1, keepdims=True).clip(1)
    return float((directions @ (color / np.linalg.norm(color)) > 0.995).mean())


def test_colours_are_those_of_the_classes(opened):
    tab, _, faults = opened
    tab.select_option('#color', 'class')
    pixels = picture(tab)
    assert len(pixels) > 5000
    shares = [share_of_hue(pixels, color.astype(float)) for color in PALETTE]
    assert min(shares) > 0.01
    assert sum(shares) > 0.97
    tab.select_option('#color', 'rgb')
    assert share_of_hue(picture(tab), PALETTE[0].astype(float)) < 0.01
    assert not faults


def test_a_class_is_hidden_and_comes_back(opened):
    tab, _, _ = opened
    tab.select_option('#color', 'class')
    before = share_of_hue(picture(tab), PALETTE[1].astype(float))
    tab.locator('#classes label', has_text='chair').locator('input').click()
    assert share_of_hue(picture(tab), PALETTE[1].astype(float)) == 0
    tab.click('#none')
    assert len(picture(tab)) == 0
    tab.click('#all')
    assert share_of_hue(picture(tab), PALETTE[1].astype(float)) == pytest.approx(before, abs=0.01)


def test_a_click_says_what_was_hit(opened):
    tab, _, _ = opened
    # the highest point of the lamp: nothing can stand before it
    top = int(np.argmax(small_segmentation().upright[:, 2]))
    x, y, _ = tab.evaluate(f'page.project(page.place({top}))')
    box = tab.locator('#canvas').bounding_box()
    tab.mouse.click(box['x'] + x, box['y'] + y)
    said = tab.inner_text('#picked')
    assert 'class lamp' in said
    assert 'instance 1 lamp, score 0.60' in said
    assert 'a chair: ' in said


def test_texts_are_switched(opened):
    tab, _, _ = opened
    first, second = tab.locator('#texts button').all()
    first.click()
    assert tab.input_value('#color') == 'similarity'
    assert 'chair' in tab.locator('#ranked li').first.inner_text()
    found = picture(tab)
    second.click()
    assert second.inner_text() == HARMFUL
    assert 'nothing like that' in tab.inner_text('#ranked')
    assert picture(tab).mean() < found.mean()
    assert not tab.locator('main img').count()


def test_ceiling_cut_turning_and_flying(opened):
    tab, _, _ = opened
    tab.select_option('#color', 'class')
    tab.click('#reset')  # also what was clicked, which is part of the picture
    lamp = PALETTE[2].astype(float)
    whole = share_of_hue(picture(tab), lamp)
    tab.evaluate("document.getElementById('cut').click()")
    tab.fill('#height', '0.1')
    assert share_of_hue(picture(tab), lamp) < 0.6 * whole
    tab.evaluate("document.getElementById('cut').click()")

    tab.locator('#objects button', has_text='lamp').click()
    assert share_of_hue(picture(tab), lamp) > 1.8 * whole
    tab.click('#reset')
    assert share_of_hue(picture(tab), lamp) == pytest.approx(whole, abs=0.01)


def test_objects_are_hidden_and_shown_alone(opened):
    tab, _, _ = opened
    tab.select_option('#color', 'class')
    floor, chair, lamp = (color.astype(float) for color in PALETTE)
    tab.locator('#objects li', has_text='chair').locator('input').click()
    pixels = picture(tab)
    assert share_of_hue(pixels, chair) == 0
    assert share_of_hue(pixels, lamp) > 0.01
    tab.locator('#objects li', has_text='lamp').locator('.only').click()
    pixels = picture(tab)
    assert share_of_hue(pixels, lamp) > 0.97
    assert 0 < len(pixels) < 20_000

    tab.click('#objects-all')
    pixels = picture(tab)
    assert min(share_of_hue(pixels, color) for color in (floor, chair, lamp)) > 0.01


def test_a_ruler_between_two_clicks(opened):
    """The feet of the chair and of the lamp, whose distance the points themselves tell."""
    tab, _, _ = opened
    cloud = small_segmentation().upright
    tab.click('#reset')
    tab.check('#measure')
    assert tab.inner_text('#length') == 'click one end'
    tops = [int(np.argmax(np.where(rows, cloud[:, 2], -1))) for rows in (
        np.arange(3000) // 100 == 20, np.arange(3000) >= 2600)]  # fmt: skip
    box = tab.locator('#canvas').bounding_box()
    hit = []
    for top in tops:
        x, y, _ = tab.evaluate(f'page.project(page.place({top}))')
        hit.append(tab.evaluate(f'page.place(page.pick({x}, {y}))'))
        tab.mouse.click(box['x'] + x, box['y'] + y)
    length = np.linalg.norm(np.subtract(*hit))
    assert length > 2
    assert tab.inner_text('#length').startswith(f'{length:.3f} m')
    assert f'{length:.2f} m' in tab.inner_text('#labels')
    assert tab.locator('#picked').is_hidden()
    tab.uncheck('#measure')
    assert ' m' not in tab.inner_text('#labels').replace('lamp', '')


def test_a_crop_box_cuts_what_is_outside(opened):
    tab, _, _ = opened
    tab.select_option('#color', 'class')
    tab.evaluate("for (const id of ['boxes', 'names']) document.getElementById(id).checked = false")
    _, chair, lamp = (color.astype(float) for color in PALETTE)
    tab.check('#crop')
    tab.fill('#crop-sides input >> nth=1', '0.5')  # x up to 2 m: the lamp stands beyond
    pixels = picture(tab)
    assert share_of_hue(pixels, lamp) == 0
    assert share_of_hue(pixels, chair) > 0.01
    # what is cut out cannot be clicked
    top = int(np.argmax(small_segmentation().upright[:, 2]))
    x, y, _ = tab.evaluate(f'page.project(page.place({top}))')
    assert tab.evaluate(f'page.pick({x}, {y})') == -1

    tab.locator('#objects .fly', has_text='lamp').click()
    tab.click('#crop-object')
    pixels = picture(tab)
    assert share_of_hue(pixels, lamp) > 0.3
    assert share_of_hue(pixels, chair) == 0
    tab.uncheck('#crop')
    tab.click('#reset')
    tab.evaluate("for (const id of ['boxes', 'names']) document.getElementById(id).checked = true")


def test_truth_errors_and_features_are_colours(browser, tmp_path):
    """The truth calls the lamp a chair: right are floor and chair, wrong is the lamp."""
    result, asked = small_segmentation(), small_asked()
    names, palette = ('chair', 'floor'), np.array([[200, 0, 200], [0, 200, 200]], np.uint8)
    truth = GroundTruth(np.repeat([1, 0, 0], [2000, 600, 400]), names, palette)
    path = tmp_path / 'truth.html'
    write_page(path, view_scene('room', result.upright, result.rgb, result, asked, truth=truth))
    tab = browser.new_page(viewport=SIZE)
    tab.goto(path.as_uri())
    tab.wait_for_selector('body[data-ready]')
    tab.evaluate("for (const id of ['boxes', 'names']) document.getElementById(id).click()")

    tab.select_option('#color', 'ground truth')
    pixels = picture(tab)
    assert sum(share_of_hue(pixels, color.astype(float)) for color in palette) > 0.97
    tab.select_option('#color', 'errors')
    pixels = picture(tab)
    assert share_of_hue(pixels, np.array([70.0, 170, 90])) > 0.5
    assert 0.01 < share_of_hue(pixels, np.array([225.0, 60, 50])) < 0.3
    tab.select_option('#color', 'features')
    hues = {tuple(color) for color in tab.evaluate('page.scene.features')}
    pixels = picture(tab)
    assert len(hues) == 3
    assert sum(share_of_hue(pixels, np.array(color, float)) for color in hues) > 0.97

    tab.evaluate('page.show(2999)')
    assert 'ground truth chair' in tab.inner_text('#picked')
    tab.close()


def test_labels_are_corrected_and_saved(browser):
    """The lamp becomes a chair, then a part of the chair, then nothing; and one step back."""
    saved = []
    with serving(editable(saved)) as running:
        tab = browser.new_page(viewport=SIZE)
        tab.goto(running.url)
        tab.wait_for_selector('body[data-ready]')
        tab.evaluate("for (const id of ['boxes', 'names']) document.getElementById(id).click()")
        chair, lamp = (color.astype(float) for color in PALETTE[1:])
        assert share_of_hue(picture(tab), lamp) > 0.01
        assert tab.is_disabled('#delete')

        tab.locator('#objects .fly', has_text='lamp').click()
        tab.click('#reset')
        tab.select_option('#new-name', 'chair')
        tab.click('#rename')
        wait_until(tab, "page.scene.objects[1].name === 'chair'")
        pixels = picture(tab)
        assert share_of_hue(pixels, lamp) == 0
        assert share_of_hue(pixels, chair) > 0.01

        tab.locator('#objects .fly').nth(0).click()
        tab.click('#merge')
        tab.locator('#objects .fly').nth(1).click()
        wait_until(tab, 'page.scene.objects.length === 1')
        assert tab.evaluate('page.scene.objects[0].count') == 1000
        tab.locator('#objects .fly').click()
        tab.click('#delete')
        wait_until(tab, 'page.scene.objects.length === 0')
        tab.click('#undo')
        wait_until(tab, 'page.scene.objects.length === 1')

        tab.click('#save')
        wait_until(tab, "document.getElementById('kept').textContent.includes('saved')")
        (result,) = saved
        np.testing.assert_array_equal(result.semantic, np.repeat([0, 1], [2000, 1000]))
        # who comes later sees the corrected scene
        tab.reload()
        tab.wait_for_selector('body[data-ready]')
        assert tab.locator('#objects li').count() == 1
        tab.close()


def test_the_page_waits_for_its_scene(browser, live):  # noqa: F811
    with serving(None) as running:
        running.report('network', 1, 4)
        tab = browser.new_page(viewport=SIZE)
        tab.goto(running.url)
        wait_until(tab, "document.getElementById('step').textContent === 'network 1 of 4'")
        assert tab.evaluate("document.getElementById('bar').value") == 0.25
        running.show(live)
        tab.wait_for_selector('body[data-ready]')
        assert tab.inner_text('#title') == 'room'
        tab.close()


class Painted:
    """Draws one colour; remembers from where it was asked to."""

    names = ('rgb', 'depth')

    def __init__(self) -> None:
        self.asked = []

    def __call__(self, name, eye, axes) -> bytes:
        self.asked.append((name, eye, axes))
        file = io.BytesIO()
        color = (230, 20, 200) if name == 'rgb' else (20, 230, 90)
        Image.new('RGB', (128, 96), color).save(file, 'JPEG')
        return file.getvalue()


def test_a_rendered_view_follows_the_camera(browser):
    result, painted = small_segmentation(), Painted()
    scene = view_scene('field', result.upright, result.rgb)
    world = result.points[:, :3].astype(float)
    with serving(LiveScene(scene, world, (np.eye(3), np.zeros(3)), renderer=painted)) as running:
        tab = browser.new_page(viewport=SIZE)
        tab.goto(running.url)
        tab.wait_for_selector('body[data-ready]')
        shown = "document.getElementById('rendered').naturalWidth === 128"
        wait_until(tab, shown)
        assert share_of_hue(picture(tab), np.array([230.0, 20, 200])) > 0.2
        _, eye, axes = painted.asked[-1]
        np.testing.assert_allclose(eye, tab.evaluate('page.camera.eye()'), atol=1e-4)
        np.testing.assert_allclose(axes, tab.evaluate('page.camera.axes()'), atol=1e-4)

        tab.select_option('#rendered-what', 'depth')
        tab.evaluate('page.camera.zoom(0.5); page.redraw()')
        wait_until(tab, "document.getElementById('rendered').src.includes('depth')")
        wait_until(tab, '!page.live.rendering.busy')
        assert share_of_hue(picture(tab), np.array([20.0, 230, 90])) > 0.2
        tab.uncheck('#rendered-on')
        assert share_of_hue(picture(tab), np.array([20.0, 230, 90])) == 0
        tab.close()


def test_no_request_but_the_page(opened):
    _, requests, faults = opened
    assert [url.partition(':')[0] for url in requests] == ['file']
    assert not faults


def test_a_served_scene_is_asked_and_shows_its_images(browser, server, tmp_path):  # noqa: F811
    tab = browser.new_page(viewport=SIZE)
    requests, faults = [], []
    tab.on('request', lambda request: requests.append(request.url))
    tab.on('pageerror', lambda error: faults.append(str(error)))
    tab.on('console', lambda message: faults.append(message.text))
    tab.goto(server.url)
    tab.wait_for_selector('body[data-ready]')

    floor_color = PALETTE[0].astype(float)
    assert share_of_hue(picture(tab), floor_color) > 0.3
    tab.fill('#question', 'chair')
    tab.press('#question', 'Enter')
    tab.wait_for_selector('#ranked .crop')
    assert 'chair' in tab.locator('#ranked li').first.inner_text()
    assert tab.input_value('#color') == 'similarity'
    assert share_of_hue(picture(tab), floor_color) < 0.05

    # the floor below the first camera
    floor = int(np.argmin(np.linalg.norm(small_segmentation().upright - [1.5, 1.5, 0], axis=1)))
    tab.evaluate(f'page.show({floor})')
    tab.wait_for_selector('#seen img')
    assert tab.locator('#seen figcaption').first.inner_text() == 'first'
    width = 'image => image.decode().then(() => image.naturalWidth)'
    loaded = tab.locator('#seen img').first.evaluate(width)
    assert loaded == 64

    # the pictures hang where they were taken, away from the cloud
    place = np.array(tab.evaluate('page.live.pictures.corners(1)')).mean(0).tolist()
    tab.evaluate(f'page.show(-1); page.camera.flyTo([...{place}, 0.3, 0.3, 0.3])')
    tab.check('#cameras')
    tab.wait_for_selector('#images[data-loaded]')
    bright = np.abs(picture(tab) - 180).max(1) < 6  # as the second image is
    assert bright.sum() > 3000
    x, y, _ = tab.evaluate(f'page.project({place})')
    box = tab.locator('#canvas').bounding_box()
    tab.mouse.click(box['x'] + x, box['y'] + y)
    assert tab.inner_text('#said') == 'second'
    centre = tab.evaluate('page.live.cameras[1].centre')
    np.testing.assert_allclose(tab.evaluate('page.camera.eye()'), centre, atol=1e-3)
    tab.evaluate("document.getElementById('picked').hidden = true")
    bright = np.abs(picture(tab) - 180).max(1) < 6
    assert bright.sum() < 300  # it hides nothing from its own eye
    tab.uncheck('#cameras')
    tab.locator('#images button').first.click()
    np.testing.assert_allclose(tab.evaluate('page.camera.eye()'), [9, 1, 3], atol=1e-3)
    with tab.expect_download() as download:
        tab.locator('#exports a', has_text='JSON').click()
    download.value.save_as(tmp_path / 'out.json')
    assert len(json.loads((tmp_path / 'out.json').read_text())['annotations']) == 2

    tab.locator('#objects li', has_text='lamp').locator('.only').click()
    assert 'of 1 object' in tab.inner_text('#exports')
    with tab.expect_download() as download:
        tab.locator('#exports a', has_text='PLY').click()
    download.value.save_as(tmp_path / 'lamp.ply')
    xyz, _, labels = read_ply(tmp_path / 'lamp.ply')
    np.testing.assert_array_equal(xyz, small_segmentation().points[2600:, :3])
    assert set(labels['semantic']) == {2}

    assert all(url.startswith(server.url) for url in requests)
    assert not faults
    tab.close()

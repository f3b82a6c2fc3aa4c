"""A page in a real browser, Debian's chromium and chromium-driver, with selenium: fixtures for all tests."""

import shutil
import time

import pytest

# Patience with a busy machine.
SECONDS = 10


@pytest.fixture(scope="session")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("there is no chromium with its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    # A window that shows each picture as a whole, because offsets are relative to the centre of its visible part.
    # Containers have neither the sandbox's rights nor much shared memory.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,2400"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options, service) as browser:
        yield browser


class BrowserPage:
    """Uses the page as a reader does."""

    def __init__(self, browser, downloads):
        self.browser, self.downloads = browser, downloads

    def get(self, id):
        return self.browser.find_element("id", id)

    def text(self, id):
        return self.get(id).text

    def choose(self, id, text):
        from selenium.webdriver.support.select import Select

        Select(self.get(id)).select_by_visible_text(text)

    def actions(self, duration=0):
        from selenium.webdriver import ActionChains

        return ActionChains(self.browser, duration=duration)

    def press(self, *keys):
        self.actions().send_keys(*keys).perform()

    def until(self, condition):
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.02)

    def download(self, id, name):
        self.get(id).click()
        file = self.downloads / name
        self.until(lambda: file.exists() and file.stat().st_size > 0)
        return file.read_bytes()


@pytest.fixture
def open_in_browser(browser, tmp_path):
    """Return a function that opens a page; after the test, check that it has logged no error and made no image."""
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})

    def run(path, kind=BrowserPage):
        browser.get(path.as_uri())
        return kind(browser, tmp_path)

    yield run
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0

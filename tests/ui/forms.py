"""The forms of Prefect's two UIs, the newer below /v2: the same few gestures on different pages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from tests.support.browser import RUN_SECONDS, SECONDS, Browser
from tests.support.waiting import until

PATIENCE = 20.0
"""Seconds in which the run of a form that was submitted is there, also on a busy machine."""

_PICK = """
const select = document.evaluate(arguments[0], document, null, 9, null).singleNodeValue
const option = select && [...select.options].find(option => option.text.trim() === arguments[1])
if (!option) return false
option.selected = true
for (const name of ['input', 'change']) select.dispatchEvent(new Event(name, {bubbles: true}))
return true
"""


class Newer:
    """The UI that Prefect shows by default."""

    name = "newer"
    path = "/v2"

    def __init__(self, browser: Browser) -> None:
        self.browser = browser

    def field(self, title: str, inside: str) -> str:
        """Where an element of the form field with this title is."""
        label = f"//label[normalize-space()='{title}' or normalize-space()='{title} (Optional)']"
        return f"({label}/ancestor::*[.//fieldset][1]//fieldset)[1]{inside}"

    def fill(self, title: str, text: str) -> None:
        self.browser.type(self.field(title, "//*[self::textarea or self::input]"), text)

    def add(self, title: str, text: str, number: int = 1) -> None:
        self.browser.click(self.field(title, "//button[normalize-space()='Add item']"))
        self.browser.type(self.field(title, f"/descendant::*[self::textarea or self::input][{number}]"), text)

    def choose(self, title: str, option: str) -> None:
        self.browser.click(self.field(title, "//button"))
        self.browser.click(f"//*[@role='option'][normalize-space()='{option}']")
        self.browser.see(self.field(title, f"//*[normalize-space()='{option}']"))

    def choose_block(self, title: str, block: str) -> None:
        self.browser.click(self.field(title, "//button[normalize-space()='Add item']"))
        self.browser.click(self.field(title, "//button[@aria-label='Select a block']"))
        self.browser.click(f"//*[@role='option'][normalize-space()='{block}']")
        self.browser.see(self.field(title, f"//*[normalize-space()='{block}']"))

    def switch(self, title: str) -> None:
        self.browser.click(self.field(title, "//button[@role='switch']"))

    def switch_in_group(self, group: str, title: str) -> None:
        """Makes a group of options present, and switches one of them on. Again where a click had no effect: while the
        page is still checking what was typed, it doesn't listen."""
        label = f"//label[normalize-space()='{title} (Optional)']"

        def is_open() -> bool:
            if f"{title} (Optional)" not in self.browser.text:
                self.browser.click(self.field(group, "//button[@role='tab'][1]"))
            return f"{title} (Optional)" in self.browser.text

        until(f"the group {group}", is_open, SECONDS, every=1)
        self.browser.click(f"{label}/ancestor::*[.//fieldset][1]//button[@role='switch']")

    def submit(self, has_started: Callable[[], bool]) -> None:
        """Starts the run. A click has no effect while the page still checks what was typed, so another one follows
        where no run came of it: never where one did, for the second would be a run as well."""

        def started_or_clicked() -> bool:
            if has_started():
                return True
            with suppress(AssertionError):  # the page went while the button was looked for
                self.browser.click("//button[normalize-space()='Submit']", seconds=2)
            with suppress(AssertionError):
                until("the run", has_started, PATIENCE)
            return has_started()

        until("the run", started_or_clicked, RUN_SECONDS)

    tabs, selected = "//*[@role='tab']", "[@aria-selected='true']"

    def tab(self, name: str) -> None:
        """Again where the page drew itself anew under the click, as that of a running run does."""
        tab = f"{self.tabs}[normalize-space()='{name}']"

        def is_selected() -> bool:
            self.browser.click(tab)
            with suppress(AssertionError):
                self.browser.see(f"{tab}{self.selected}", seconds=2)
                return True
            return False

        until(f"the tab {name}", is_selected, SECONDS)

    def see_listed(self, text: str) -> None:
        """Waits for a row of the list that the selected tab shows."""
        self.browser.see(f"//*[contains(text(),'{text}')]")

    def resume(self) -> None:
        """Opens the form of a run that waits for a person."""
        self.browser.click("(//button[@aria-haspopup='menu'])[last()]")
        self.browser.click("//*[@role='menuitem'][normalize-space()='Resume']")

    def answer(self) -> None:
        self.browser.click("//*[@role='dialog']//button[normalize-space()='Resume']")

    def see_state(self, name: str) -> None:
        self.browser.see(f"//*[normalize-space()='{name}']", RUN_SECONDS)


class Older(Newer):
    """The UI that Prefect has had since its second version."""

    name = "older"
    path = ""

    def field(self, title: str, inside: str) -> str:
        label = "//span[contains(@class,'schema-form-property__label')]"
        named = f"[normalize-space()='{title}' or normalize-space()='{title} (Optional)']"
        return f"({label}{named}/ancestor::div[contains(@class,'p-label schema-form')][1]//fieldset)[1]{inside}"

    def choose(self, title: str, option: str) -> None:
        self._pick(title, option)

    def choose_block(self, title: str, block: str) -> None:
        self.browser.click(self.field(title, "//button[normalize-space()='Add item']"))
        self._pick(title, block)

    def _pick(self, title: str, option: str) -> None:
        """A click on the option of a closed list isn't one that a driver can do."""
        select = self.field(title, "/descendant::select[1]")
        until(f"{option} in {title}", lambda: self.browser.run(_PICK, select, option), SECONDS)

    def switch(self, title: str) -> None:
        self.browser.click(self.field(title, "//*[@role='switch' or contains(@class,'p-toggle__control')]"))

    tabs, selected = "//li[contains(@class,'p-tab')]", "[contains(@class,'p-tab__active')]"

    def see_listed(self, text: str) -> None:
        """Scrolls to the list as well, again and again, for the picture of a running run grows above it: this UI draws
        rows where they are in the window, and nowhere else."""

        def is_seen() -> bool:
            with suppress(AssertionError):
                self.browser.see("//*[contains(@class,'p-virtual-scroller-chunk')]", seconds=2)
                self.browser.see(f"//*[contains(text(),'{text}')]", seconds=2)
                return True
            return False

        until(f"{text} in the list", is_seen, SECONDS)

    def resume(self) -> None:
        self.browser.click("//button[normalize-space()='Resume']")

    def answer(self) -> None:
        self.browser.click("(//button[normalize-space()='Submit'])[last()]")

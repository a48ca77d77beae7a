"""What every page has in common."""

import re

import pytest

from app.pages import NAVIGATION


@pytest.mark.parametrize("url", [url for url, _icon, _label in NAVIGATION])
def test_every_page_in_the_navigation_answers_and_says_where_one_is(house, url):
    page = house.browser.get(url)
    assert page.status_code == 200
    assert re.findall(r'<a href="([^"]+)" aria-current="page"', page.text) == [url, url]  # in the side bar and in the menu of small screens


def test_no_page_has_a_style_or_a_script_of_its_own_that_the_policy_would_refuse(house):
    for url, _icon, _label in NAVIGATION:
        page = house.browser.get(url).text
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", page), url


def test_a_page_that_is_not_there_is_a_page(house):
    page = house.browser.get("/nowhere")
    assert page.status_code == 404 and "To the overview" in page.text


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_chosen_theme_is_there_from_the_first_byte(house, theme):
    house.browser.cookies.set("theme", theme)
    assert f'<html lang="en" data-theme="{theme}">' in house.browser.get("/").text


def test_a_theme_that_is_none_is_left_alone(house):
    house.browser.cookies.set("theme", "evil")
    assert "evil" not in house.browser.get("/").text

"""The demo's page: whole, self-contained, and safe against what a name may hold."""

import re

from app.report import write_report


def test_the_page_holds_the_tables_and_loads_nothing(tmp_path):
    rows = [["", "n", "resampler"], ["cider", "12", "6.3"]]
    promises = [["", "n", "value", "", "bound", ""], ["colour <script>", "500", "1", ">=", "0.9", "kept"]]
    write_report(tmp_path / "report.html", comparison=rows, promises=promises, kept=True, places={"data": tmp_path})
    page = (tmp_path / "report.html").read_text()
    assert "<td>6.3</td>" in page
    assert "colour &lt;script&gt;" in page
    assert "Every promise is kept." in page
    assert not re.search(r"""(?:src|href)=|url\(|@import|https?://""", page)

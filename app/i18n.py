"""The one gettext function. Every text of the app that a person may read goes through `_`.

Values are put in after the lookup, `_("No run {id}.").format(id=7)`, so that a catalogue can hold the sentence.
"""

import gettext
from pathlib import Path

_catalogue = gettext.translation("panollava", localedir=Path(__file__).parent / "locale", fallback=True)

_ = _catalogue.gettext
ngettext = _catalogue.ngettext

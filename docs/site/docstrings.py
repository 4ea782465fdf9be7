"""Docstrings of this house for mkdocstrings."""

import griffe
import reference  # which hooks.py has imported


class Docstrings(griffe.Extension):
    """Links instead of Sphinx's roles."""

    def on_object(self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **_: object) -> None:
        if obj.docstring:
            obj.docstring.value = reference.with_links(obj.docstring.value)

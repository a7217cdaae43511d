"""Results as text: for the terminal, JSON and Markdown. Nothing here decides anything.

`words` and `tables` hold the content once; `terminal`, `as_markdown` and `as_json` lay it out; `write` puts it
into files; `progress` draws the bar. Each is imported where it is used.
"""

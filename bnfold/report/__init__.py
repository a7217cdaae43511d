"""Results as text: for the terminal, JSON, Markdown and HTML. Nothing here decides anything.

`words` and `tables` hold the content once; `terminal`, `as_markdown` and `as_json` lay it out. The page of `as_html`
has `tiles` on top, `measures` in its tables, `charts`, and `drawing` for graphs; its text stands in `templates`.
`write` puts all of them into files; `progress` draws the bar. Each is imported where it is used.
"""

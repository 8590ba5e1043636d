"""Page of a build: one HTML file that decides, works offline, needs no script and prints well."""

from minigpt.report.page.build import FILE_NAME, render_page, write_page

__all__ = ["FILE_NAME", "render_page", "write_page"]

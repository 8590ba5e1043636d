"""Page of a build: one HTML file that decides, works offline, needs no script and prints well."""

from minigpt.report.page.build import FILE_NAME, render_page, write_page
from minigpt.report.page.comparison import render_comparison_page, write_comparison_page

__all__ = ["FILE_NAME", "render_comparison_page", "render_page", "write_comparison_page", "write_page"]

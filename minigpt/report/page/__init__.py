"""Pages of a build, a comparison and a catalog: HTML files that decide, work offline, need no script and print well."""

from minigpt.report.page.build import FILE_NAME, render_page, write_page
from minigpt.report.page.catalog import Finished, render_catalog_page, write_catalog_page
from minigpt.report.page.comparison import render_comparison_page, write_comparison_page

__all__ = [
    "FILE_NAME",
    "Finished",
    "render_catalog_page",
    "render_comparison_page",
    "render_page",
    "write_catalog_page",
    "write_comparison_page",
    "write_page",
]

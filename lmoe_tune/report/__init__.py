"""`lmoe-tune report`: what a sweep found, as one page that needs no network, and its figures as
PNGs. `write` does all of it; to add a figure, add it to `figures`.
"""

from lmoe_tune.report.write import report_folder, write_report

__all__ = ["report_folder", "write_report"]

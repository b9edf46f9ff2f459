"""`lmoe-tune report`: what a sweep found, as one page that needs no network, and its figures as
PNGs.
"""

from lmoe_tune.report.write import report_folder, write_report

__all__ = ["report_folder", "write_report"]

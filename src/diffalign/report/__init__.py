"""REPORT: a run as pictures, curves and one self-contained page.

`report.plots` and `report.pictures` load matplotlib and `report.html` does not, so import only the needed
one.
"""

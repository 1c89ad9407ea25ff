"""The report: one self-contained HTML file, and the picture of its main result.

board       the leaderboard and the paper's figures, cell by cell
contents    what the questions are made of, and which of them are shown with their replies
plots       figures as SVG in the page's colours, or as PNG
page        all of it, rendered by report.html.j2
"""

"""What the published systems claim, tested at a small size: the runs, what is read of their results, and the page of it all.

`python -m benchmarks.evidence` runs the comparisons (runs.py) and writes the tables of docs/evidence.md (page.py) from the files in
benchmarks/results alone. What is compared for which claim stands in claims.py, the rule by which figures become a word in outcome.py.
"""

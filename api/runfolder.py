"""What the folder of one run holds, for the worker and for its child process."""

CASE, SETTINGS, RESULTS, SUMMARY = "case", "settings.json", "results", "summary.json"

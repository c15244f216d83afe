"""Measuring policies: episodes on suites of scenes, figures with intervals, reports and pictures."""

"""Reports for people and for CI: the page and JUnit."""

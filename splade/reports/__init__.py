"""Results as tables, figures and files: the one place that formats them."""

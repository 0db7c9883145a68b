"""From a scan on disk to records and packed samples."""

"""Made-up studies of every kind that the node reads, with answers of every kind that its pipelines give."""

"""What a model says of one packed ECG: the numbers of ``predict`` and of a release; no files, no pages."""

"""The name of the file by which the folder of a training run is known; it is read without what training needs."""

RUN_FILE = "run.yaml"

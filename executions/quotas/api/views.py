"""GET /api/v1/quota/: one's own quotas, what is used of them and when it frees."""

from dataclasses import asdict
from typing import cast

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from executions.quotas import usage
from executions.quotas.terms import Terms, terms_of
from filestore.api.error_shape import ErrorSerializer


class CountSerializer(serializers.Serializer[object]):
    limit = serializers.IntegerField(allow_null=True, help_text="Null where there is none.")
    used = serializers.FloatField()
    frees_at = serializers.DateTimeField(
        allow_null=True, help_text="When some of it frees; null where that isn't known."
    )


class CeilingsSerializer(serializers.Serializer[object]):
    """Null is what the installation allows anyone."""

    cpu_cores = serializers.FloatField(allow_null=True)
    memory_mb = serializers.IntegerField(allow_null=True)
    wall_clock_secs = serializers.IntegerField(allow_null=True)
    pids_limit = serializers.IntegerField(allow_null=True)
    nofile = serializers.IntegerField(allow_null=True)
    highest_priority = serializers.IntegerField(allow_null=True)


class QuotaSerializer(serializers.Serializer[object]):
    runs_at_a_time = CountSerializer()
    runs_queued = CountSerializer()
    runs_an_hour = CountSerializer()
    cpu_secs_a_day = CountSerializer()
    stored_bytes = CountSerializer()
    stored_files = CountSerializer()
    ceilings = CeilingsSerializer()
    networks = serializers.ListField(child=serializers.CharField(), allow_null=True)
    images = serializers.ListField(child=serializers.CharField(), allow_null=True)
    weight = serializers.IntegerField(help_text="Turns where others have one.")
    retention_days = serializers.IntegerField(allow_null=True)
    retention_runs = serializers.IntegerField(allow_null=True)


_FREE = {"limit": None, "used": 0.0, "frees_at": None}
EXAMPLE = {
    "runs_at_a_time": {"limit": 3, "used": 1.0, "frees_at": None},
    "runs_queued": {"limit": 20, "used": 0.0, "frees_at": None},
    "runs_an_hour": {"limit": 100, "used": 7.0, "frees_at": "2026-01-01T13:04:00Z"},
    "cpu_secs_a_day": {"limit": None, "used": 12.5, "frees_at": "2026-01-02T00:00:00Z"},
    "stored_bytes": _FREE,
    "stored_files": _FREE,
    "ceilings": {
        "cpu_cores": 1.0,
        "memory_mb": 512,
        "wall_clock_secs": None,
        "pids_limit": None,
        "nofile": None,
        "highest_priority": None,
    },
    "networks": ["none"],
    "images": ["docker.io/library/*"],
    "weight": 1,
    "retention_days": None,
    "retention_runs": None,
}
AWAY = {"error": "The service can't reach its database; try again.", "code": "unavailable"}


class QuotaView(APIView):
    @extend_schema(
        operation_id="quota",
        summary="Your quotas",
        description="Each quota of yours, what is used of it and when it frees.",
        tags=["execution"],
        responses={
            200: OpenApiResponse(QuotaSerializer, "Yours.", [OpenApiExample("some", EXAMPLE)]),
            503: OpenApiResponse(
                ErrorSerializer, "The database is away.", [OpenApiExample("unavailable", AWAY)]
            ),
        },
    )
    def get(self, request: Request) -> Response:
        user_id = cast(int, request.user.pk)
        terms = terms_of(user_id) or Terms()
        return Response(QuotaSerializer(_told(terms, user_id)).data)


def _told(terms: Terms, user_id: int) -> dict[str, object]:
    found = usage.used(user_id)
    stored_bytes, stored_files = usage.stored(user_id)
    used: dict[str, tuple[float, object]] = {
        "runs_at_a_time": (found.claimed, None),
        "runs_queued": (found.waiting(terms.runs_at_a_time), None),
        "runs_an_hour": (found.runs_of_hour, found.hour_frees_at),
        "cpu_secs_a_day": (found.cpu_ms / 1000, found.day_frees_at),
        "stored_bytes": (stored_bytes, None),
        "stored_files": (stored_files, None),
    }
    everything = asdict(terms)
    counts = {
        name: {"limit": everything[name], "used": amount, "frees_at": frees_at}
        for name, (amount, frees_at) in used.items()
    }
    return {
        **everything,
        **counts,
        "weight": terms.weight or 1,
        "ceilings": everything,
    }

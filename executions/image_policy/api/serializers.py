"""The shapes of images, prefetches and rules."""

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError as ModelError
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from executions.api.fields import ClosedSerializer, LimitField, TextField
from executions.api.serializers import IMAGE_PATTERN
from executions.image_policy.models import Action, CachedImage, Prefetch, Rule
from executions.sandbox.references import REFERENCE_LIMIT

MOST_BYTES = 1 << 50
MOST_PRIORITY = 10_000


class CachedImageSerializer(serializers.ModelSerializer[CachedImage]):
    """An image of one host."""

    references = serializers.ListField(
        child=serializers.CharField(), help_text="What means this image there."
    )

    class Meta:
        model = CachedImage
        fields = [
            "digest", "references", "size", "state", "host", "first_seen", "last_used", "pulled_by",
            "rule",
        ]  # fmt: skip


class ImageListSerializer(serializers.Serializer[Any]):
    images = CachedImageSerializer(many=True)


class PrefetchRequestSerializer(ClosedSerializer):
    image = TextField(
        max_bytes=REFERENCE_LIMIT,
        pattern=IMAGE_PATTERN,
        help_text="As a registry serves it, named as Docker does.",
    )


class PrefetchSerializer(serializers.ModelSerializer[Prefetch]):
    """Where a prefetch is; poll it until its state is done, failed or cancelled."""

    class Meta:
        model = Prefetch
        fields = [
            "id", "image", "state", "digest", "bytes_done", "bytes_total", "layers_done",
            "layers_total", "error", "error_code", "host", "requested_by", "requested_at",
            "started_at", "finished_at",
        ]  # fmt: skip


class PrefetchListSerializer(serializers.Serializer[Any]):
    prefetches = PrefetchSerializer(many=True)


class RuleSerializer(serializers.ModelSerializer[Rule]):
    """A rule; `user` and `group` are names, and null in a rule for everybody."""

    user = serializers.CharField(source="user.username", allow_null=True, default=None)
    group = serializers.CharField(source="group.name", allow_null=True, default=None)

    class Meta:
        model = Rule
        fields = [
            "id", "name", "priority", "pattern", "action", "user", "group", "max_bytes",
            "platform", "created_at",
        ]  # fmt: skip


class RuleListSerializer(serializers.Serializer[Any]):
    rules = RuleSerializer(many=True)


class RuleRequestSerializer(ClosedSerializer):
    name = TextField(max_bytes=64, help_text="Told to whom it refuses; unique.")
    pattern = TextField(
        max_bytes=REFERENCE_LIMIT,
        help_text="A glob over whole references, like docker.io/library/*",
    )
    action = serializers.ChoiceField(choices=[action.value for action in Action])
    priority = serializers.IntegerField(
        min_value=-MOST_PRIORITY,
        max_value=MOST_PRIORITY,
        required=False,
        allow_null=True,
        help_text="Higher ones are looked at first; default 0.",
    )
    user = TextField(max_bytes=600, required=False, allow_null=True, help_text="A user's name.")
    group = TextField(max_bytes=600, required=False, allow_null=True, help_text="A group's name.")
    max_bytes = LimitField(
        minimum=1,
        maximum=MOST_BYTES,
        required=False,
        allow_null=True,
        help_text="The largest image, in bytes; 0 and null are none.",
    )
    platform = TextField(
        max_bytes=64, required=False, allow_null=True, help_text="Like linux/amd64."
    )

    def rule(self) -> Rule:
        """A valid one that isn't stored yet. Raises ValidationError."""
        self.is_valid(raise_exception=True)
        given = {name: value for name, value in self.validated_data.items() if value}
        user, group = given.pop("user", None), given.pop("group", None)
        rule = Rule(
            **given,
            user=_named(get_user_model(), "user", username=user) if user else None,
            group=_named(Group, "group", name=group) if group else None,
        )
        try:
            rule.full_clean()
        except ModelError as error:
            found = {
                "non_field_errors" if name == "__all__" else name: messages
                for name, messages in error.message_dict.items()
            }
            raise ValidationError(found) from None
        return rule


def _named(model: Any, field: str, **name: str) -> Any:
    found = model.objects.filter(**name).first()
    if found is None:
        raise ValidationError({field: [f"There is no {field} of that name."]})
    return found

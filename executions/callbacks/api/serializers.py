"""The shapes of deliveries, and of the secret that they are signed with."""

from typing import Any

from rest_framework import serializers

from executions.callbacks.models import Delivery, State, Try


class CallbackTrySerializer(serializers.ModelSerializer[Try]):
    """One request; `status` is that of the HTTP answer, `answer` its first KiB."""

    ms = serializers.IntegerField(allow_null=True, help_text="Null while it goes on.")

    class Meta:
        model = Try
        fields = ["at", "ms", "status", "error", "answer"]


class CallbackSerializer(serializers.ModelSerializer[Delivery]):
    """A delivery; `id` is what the header Boxer-Delivery says."""

    state = serializers.ChoiceField(choices=[state.value for state in State])
    due_at = serializers.SerializerMethodField(help_text="When it is tried next; null at its end.")
    tries = CallbackTrySerializer(many=True)

    class Meta:
        model = Delivery
        fields = ["id", "event", "url", "state", "created_at", "due_at", "give_up_at", "tries"]

    def get_due_at(self, delivery: Delivery) -> str | None:
        if delivery.state != State.PENDING:
            return None
        moment: str = serializers.DateTimeField().to_representation(delivery.due_at)
        return moment


class CallbackListSerializer(serializers.Serializer[Any]):
    callbacks = CallbackSerializer(many=True)


class CallbackSecretSerializer(serializers.Serializer[Any]):
    secret = serializers.CharField()

"""The shapes of receipts and of the key that they are signed with."""

from typing import Any

from rest_framework import serializers


class ReceiptSignatureSerializer(serializers.Serializer[Any]):
    algorithm = serializers.CharField()
    key = serializers.CharField(help_text="First 16 digits of the public key's sha256.")
    value = serializers.CharField(help_text="Base64.")


class ReceiptSerializer(serializers.Serializer[Any]):
    """`signature` is of `receipt` as JSON in UTF-8, its keys sorted, without white space."""

    receipt = serializers.DictField()
    signature = ReceiptSignatureSerializer()


class ReceiptKeySerializer(serializers.Serializer[Any]):
    algorithm = serializers.CharField()
    key = serializers.CharField()
    public_key = serializers.CharField(help_text="PEM.")

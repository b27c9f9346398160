"""Routes below /api/v1/."""

from django.urls import path

from executions.receipts.api.views import ReceiptKeyViewSet, ReceiptViewSet

urlpatterns = [
    path(
        "executions/<slug:exec_id>/receipt/",
        ReceiptViewSet.as_view({"get": "retrieve"}),
        name="receipt",
    ),
    path("receipt-key/", ReceiptKeyViewSet.as_view({"get": "retrieve"}), name="receipt-key"),
]

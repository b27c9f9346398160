"""Routes of quotas, below /api/v1/."""

from django.urls import path

from executions.quotas.api.views import QuotaView

urlpatterns = [path("quota/", QuotaView.as_view(), name="quota")]

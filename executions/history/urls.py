"""Pages of runs."""

from django.urls import path

from executions.history import views

urlpatterns = [
    path("runs/", views.Runs.as_view(), name="runs"),
    path("runs/change", views.Change.as_view(), name="runs-change"),
    path("runs/export.csv", views.ExportCSV.as_view(), name="runs-csv"),
    path("runs/export.jsonl", views.ExportLines.as_view(), name="runs-jsonl"),
    path("runs/<str:exec_id>/", views.Run.as_view(), name="run"),
]

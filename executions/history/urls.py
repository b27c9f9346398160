"""Pages of runs."""

from django.urls import path

from executions.history import starting, views

urlpatterns = [
    path("", starting.Overview.as_view(), name="overview"),
    path("runs/new", starting.New.as_view(), name="run-new"),
    path("runs/", views.Runs.as_view(), name="runs"),
    path("runs/change", views.Change.as_view(), name="runs-change"),
    path("runs/export.csv", views.ExportCSV.as_view(), name="runs-csv"),
    path("runs/export.jsonl", views.ExportLines.as_view(), name="runs-jsonl"),
    path("runs/<str:exec_id>/", views.Run.as_view(), name="run"),
]

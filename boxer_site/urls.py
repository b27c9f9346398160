"""Every route."""

urlpatterns: list[object] = []

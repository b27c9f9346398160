"""Pages of accounts."""

from django.urls import path

from executions.accounts import views

LOGIN = views.Login.as_view()
LOGOUT = views.Logout.as_view()

urlpatterns = [
    path("login", LOGIN, name="login"),
    path("logout", LOGOUT, name="logout"),
    path("account/", views.Account.as_view(), name="account"),
    path("account/tokens", views.CreateToken.as_view(), name="account-token-create"),
    path(
        "account/tokens/<int:token_id>/revoke",
        views.RevokeToken.as_view(),
        name="account-token-revoke",
    ),
    path("account/password", views.ChangePassword.as_view(), name="account-password"),
]

"""Pages: log in and out, one's own tokens and password."""

from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm
from django.contrib.auth.mixins import LoginRequiredMixin
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters

from executions.accounts import services, throttling
from executions.accounts.forms import TokenForm
from executions.accounts.models import Token
from executions.errors import InvalidRequest, TooManyFailures


class Login(LoginView):
    """`next` is only followed on this host (Django's own check)."""

    template_name = "accounts/login.html"
    http_method_names = ["get", "head", "post"]

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        attempt = _attempt(request, request.POST.get("username", ""))
        try:
            attempt.begin()
        except TooManyFailures as error:
            return _too_many(request, self.template_name, error, {"form": self._empty_form()})
        response = super().post(request, *args, **kwargs)
        if response.status_code == 302:
            attempt.succeeded()
        return response

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**kwargs, anonymous=settings.BOXER_ANONYMOUS)

    def _empty_form(self) -> AuthenticationForm:
        return AuthenticationForm(self.request)


class Logout(LogoutView):
    """By POST alone: a link of another page logs nobody out."""

    http_method_names = ["post"]


def _attempt(request: HttpRequest, name: str) -> throttling.Login:
    return throttling.Login(name=name, address=str(request.META.get("REMOTE_ADDR", "")))


def _too_many(
    request: HttpRequest, template: str, error: TooManyFailures, context: dict[str, Any]
) -> HttpResponse:
    context |= {"failure": f"Too many failed attempts. Try again in {error.retry_after} seconds."}
    response = render(request, template, context, status=429)
    response["Retry-After"] = str(error.retry_after)
    return response


@method_decorator([never_cache, sensitive_post_parameters()], name="dispatch")
class _AccountPage(LoginRequiredMixin, View):
    def page(self, *, status: int = 200, **context: Any) -> HttpResponse:
        tokens = Token.objects.visible_to(self.request.user)
        given = {
            "tokens": tokens,
            "token_form": TokenForm(),
            "password_form": PasswordChangeForm(_user(self.request)),
            **context,
        }
        return render(self.request, "accounts/account.html", given, status=status)


class Account(_AccountPage):
    def get(self, request: HttpRequest) -> HttpResponse:  # noqa: ARG002
        return self.page()


class CreateToken(_AccountPage):
    """Shows the token in the answer itself, so that it lies in no session and no cache."""

    def post(self, request: HttpRequest) -> HttpResponse:
        form = TokenForm(request.POST)
        if form.is_valid():
            try:
                token, secret = services.create_token(
                    user_id=_user(request).pk,
                    name=form.cleaned_data["name"],
                    days=form.cleaned_data["days"],
                )
            except InvalidRequest as error:
                form.add_error(None, error.message)
            else:
                return self.page(created=token, secret=secret)
        return self.page(status=400, token_form=form)


class RevokeToken(_AccountPage):
    def post(self, request: HttpRequest, token_id: int) -> HttpResponse:
        if not services.revoke_token(token_id=token_id, owner_id=_user(request).pk):
            messages.error(request, "There is no such token.")
            return self.page(status=404)
        messages.success(request, "The token is revoked.")
        return redirect("account")


class ChangePassword(_AccountPage):
    def post(self, request: HttpRequest) -> HttpResponseBase:
        # Whoever finds a browser logged in must not try passwords here without end.
        attempt = _attempt(request, request.user.get_username())
        try:
            attempt.begin()
        except TooManyFailures as error:
            response = self.page(status=429, failure=error.message)
            response["Retry-After"] = str(error.retry_after)
            return response
        form = PasswordChangeForm(_user(request), request.POST)
        if "old_password" not in form.errors:
            attempt.succeeded()
        if not form.is_valid():
            return self.page(status=400, password_form=form)
        update_session_auth_hash(request, form.save())
        messages.success(request, "The password is changed; other browsers are logged out.")
        return redirect("account")


def _user(request: HttpRequest) -> User:
    return cast(User, request.user)  # logged in

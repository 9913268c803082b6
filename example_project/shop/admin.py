"""The shop's own tables in the admin. Jobs, runs and workers are there too, thanks to dayfly."""

from __future__ import annotations

from django.contrib import admin

from shop.models import Customer, Order, OrderLine, Product


class OrderLineInline(admin.TabularInline):
    model = OrderLine
    extra = 0


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["number", "customer", "placed_on", "mailed_at"]
    list_select_related = ["customer"]
    inlines = [OrderLineInline]


admin.site.register([Customer, Product])

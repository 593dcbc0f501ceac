"""Principal → namespace. Pure: no table can be lost or edited so that two people share one."""

from __future__ import annotations

from sidecar.domain.namespace import Layout, Namespace, canonical
from sidecar.domain.principal import Principal
from sidecar.domain.slug import slug_of


def namespace_of(principal: Principal, readable_issuer: str, layout: Layout) -> Namespace:
    """`readable_issuer`: the name of the one issuer whose users are called `u-<subject>` where that is safe; may be empty."""
    slug = slug_of(principal.user_id, principal.issuer == readable_issuer)
    words = (principal.subject, principal.user_id, slug)
    return layout.namespace(principal.user_id, slug, frozenset(canonical(word) for word in words))

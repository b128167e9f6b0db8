"""All the items of a listing, one page at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Generic, Protocol, TypeVar


class Page(Protocol):
    """A response of a List call."""

    @property
    def next_page_token(self) -> str: ...


Item = TypeVar("Item")
PageType = TypeVar("PageType", bound=Page)


class AsyncPager(Generic[Item, PageType]):
    """Iterate it for all items, or ``pages()`` for the responses. Pages are fetched as needed."""

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[PageType]],
        items: Callable[[PageType], Iterable[Item]],
        page_token: str = "",
    ) -> None:
        self._fetch = fetch
        self._items = items
        self._first = page_token

    async def pages(self) -> AsyncIterator[PageType]:
        """Yield each response, from the page of ``page_token`` on."""
        token = self._first
        while True:
            page = await self._fetch(token)
            yield page
            token = page.next_page_token
            if not token:
                return

    async def __aiter__(self) -> AsyncIterator[Item]:
        async for page in self.pages():
            for item in self._items(page):
                yield item

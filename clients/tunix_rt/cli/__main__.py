"""`python -m tunix_rt.cli` is `tunix-rt`."""

from tunix_rt.cli.main import main

if __name__ == "__main__":
    main()

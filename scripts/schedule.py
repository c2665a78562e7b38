"""Shows the schedules of a run: `python scripts/schedule.py temperature=cosine [key=value]`."""

from dvae.console.schedule import main

if __name__ == "__main__":
    main()

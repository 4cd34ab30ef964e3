"""Quality of pictures: against real ones, against the serial run of the same noise, against the prompt."""

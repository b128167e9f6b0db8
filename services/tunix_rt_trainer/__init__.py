"""The trainer service: dataset -> training job -> checkpoint."""

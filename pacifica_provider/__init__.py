"""Apache Airflow provider for the Pacifica exchange. Importing the package imports nothing else."""

__version__ = "0.1.0"

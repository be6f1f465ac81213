"""The old names of the Maildrop Host, for sites whose database or scripts have them."""

from setuptools import find_namespace_packages, setup

setup(
    name="Products.MaildropHost",
    version="8.0.0",
    description="Products.MaildropHost's names for the Maildrop Host of zope.sendmail",
    long_description=open("README.txt", encoding="utf-8").read(),  # noqa: SIM115 - read once, then it ends
    long_description_content_type="text/x-rst",
    author="Zope Foundation and Contributors",
    license_expression="ZPL-2.1",
    classifiers=["Framework :: Zope", "Programming Language :: Python :: 3 :: Only"],
    # The list names `Products` itself, so that an editable installation is a plain path, which Zope sees.
    packages=find_namespace_packages("src"),
    package_dir={"": "src"},
    package_data={"": ["*.zcml"]},
    include_package_data=False,
    zip_safe=False,
    python_requires=">=3.11",
    install_requires=["zope.sendmail[zope] >= 8"],
)
